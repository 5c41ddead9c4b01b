"""What every instruction does, in words for ``docs/isa.md``: summary, action, checks of its operands together."""

from __future__ import annotations

from shiftgrad.isa import KERNEL_MAX, LR_MAX, TERMS_END, Opcode

__all__ = ["ACTION"]

AS_FWD = "dst, dst.e, dst.history, SATURATED as in FWD"
SAME = "`dst` and `a` have the same planes and columns"
WINDOW = (f"x.planes = y.planes, x.cols = w.planes, and y's height and width are those of w's kernel, padding and "
          f"steps on x; the kernel is at most {KERNEL_MAX} x {KERNEL_MAX}, its padding smaller")

ACTION = {
    Opcode.HALT: ("Stop.", "STATUS <- HALTED; PC stays here", "none"),
    Opcode.FWD: (
        "Layer output: convolution of images `a` with kernel `b`, plus bias `c`. Dense: `a` M x K, `b` K x N, `dst` "
        "M x N.",
        """\
e_v      <- a.e + b.e
x        <- saturate(a + saturate(align(d, d.e - a.e)))     with SCALAR, else a; padding is 0 either way
v[p, o]  <- sum over taps t and channels i of x[pixel of p under t, i] * b[t, i, o]
v[p, o]  <- sat32(v[p, o] + align(c[o], c.e - e_v))         with BIAS; c[0] for every o when c is 1 x 1
v[p, o]  <- max(v[p, o], 0)                                 with RELU, and where dst is unsigned
dst.e    <- target exponent of dst from amax(v), e_v and, with DELAYED, its history
dst      <- nearest(v, dst.e - e_v), saturated to +-127; an unsigned dst to 255
dst.history <- own exponent, older ones                     unless FREEZE or v = 0
SATURATED <- mantissas saturated""",
        f"x = `a`, w = `b`, y = `dst`: {WINDOW}; `dst.cols` = `b.cols`, `c` is [1, N] or [1, 1], `d` is [1, 1] "
        "(BAD_SHAPE)",
    ),
    Opcode.BWD: (
        "Error of a layer's input: `a` is the error of its output, `b` its kernel, `dst` as large as its input.",
        """\
e_v      <- a.e + b.e
v[q, i]  <- sum over taps t, outputs o and the pixels p that see q under t of a[p, o] * b[t, i, o]
v[q, i]  <- 0 where c[q, i] <= 0                           with MASK
"""
        + AS_FWD,
        f"x = `dst`, w = `b`, y = `a`: {WINDOW}; `a.cols` = `b.cols`, taps * `b.cols` <= {TERMS_END - 1:,}, "
        "`c` is like `dst` (BAD_SHAPE)",
    ),
    Opcode.GRAD: (
        "Update of weights, or with ONES of a bias: `a` is the layer's input, `b` the error of its output, `c` the "
        "momentum.",
        """\
n        <- imm + LR_SHIFT
x        <- as in FWD; ones, exponent 0                    with ONES
g        <- min(16 - ceil(log2 b.rows), max(0, x.e + b.e - (c.e - 3)))
e_v      <- x.e + b.e - g
G[t, i, o] <- sum over pixels p of x[pixel of p under t, i] * b[p, o]
v        <- sat32(2^g * G + align(7 * c, c.e - 3 - e_v))
c.e      <- target exponent of c from amax(v), e_v and, with DELAYED, its history
c        <- stochastic(v, c.e - e_v) with r1, saturated to +-127
u        <- stochastic(c, dst.e + n - c.e) with r2, saturated to +-127 (with ONES +-32767)
dst      <- dst - u, saturated to the same bound; dst.e stays
c.history <- own exponent, older ones                      unless v = 0
SATURATED <- mantissas of c saturated""",
        f"x = `a`, w = `dst`, y = `b`: {WINDOW}; `dst.cols` = `b.cols`, `c` is like `dst`, `d` is [1, 1]; with ONES "
        f"`dst` and `c` are [1, N] (BAD_SHAPE); n is in [0, {LR_MAX}] (OVERFLOW)",
    ),
    Opcode.LOSS: (
        "Softmax cross-entropy: `a` B x C logits, `b` 1 x B labels, `dst` B x C.",
        """\
dst[i]   <- softmax(a[i]) - onehot(b[i]), or 0 when b[i] is not in [0, C); dst.e <- -7
LOSS     <- sum of the losses of samples with a label in [0, C), in 1/256 bit
CORRECT  <- those whose first largest logit is the label's
SAMPLES  <- those samples""",
        "`dst` is [B, C], C <= the configuration's classes, `b` is [1, B] (BAD_SHAPE)",
    ),
    Opcode.ADD: (
        "End of a residual block: `a` times scalar `d`, plus scalar `c`, plus the shortcut `b`.",
        """\
e_v      <- a.e + d.e; d is 16384 of exponent -14, which is 1   without SCALAR
v[p, o]  <- d * a[p, o]
v[p, o]  <- v[p, o] + align(c, c.e - e_v), that term within +-2^30  with BIAS
v[p, o]  <- sat32(v[p, o] + align(b[p', o], b.e - e_v))         with PAIR
v[p, o]  <- max(v[p, o], 0)                                     with RELU
"""
        + AS_FWD,
        "`dst` and `a` have the same rows and columns; `c` and `d` are [1, 1]; `b` has `dst`'s planes, its size or "
        "twice that (less one where odd; p' is then the pixel at twice p's coordinates), and at most its columns: "
        "those beyond add 0 (BAD_SHAPE)",
    ),
    Opcode.ADDB: (
        "Errors through a residual block: `a` times scalar `d`, plus the shortcut's error `b`.",
        """\
e_v      <- a.e + d.e; d is 16384 of exponent -14               without SCALAR
v[p, o]  <- d * a[p, o]
v[p, o]  <- sat32(v[p, o] + align(b[p', o], b.e - e_v))         with PAIR
v[p, o]  <- 0 where c[p, o] <= 0                                with MASK
"""
        + AS_FWD,
        "`dst` and `a` have the same rows and columns; `c` is like `dst`, `d` is [1, 1]; `b` has `dst`'s planes, its "
        "size or half of it (rounded up; p' is then half of p's coordinates, and odd ones add 0), and at least its "
        "columns (BAD_SHAPE)",
    ),
    Opcode.SUM: (
        "Update of a scalar by the sum of the errors `b`, or of their products with `a`; `c` is its momentum.",
        """\
e_b      <- b.e, or a.e + b.e                              with PAIR
g        <- min(16 - ceil(log2 b.rows) - ceil(log2 b.cols), max(0, e_b - (c.e - 3))); it may be negative
e_v      <- e_b - g
G        <- sum of b, or of a * b                          with PAIR
v        <- sat32(2^g * G, towards minus infinity for g < 0, + align(7 * c, c.e - 3 - e_v))
n, c, u, dst, SATURATED as in GRAD with ONES, the draws those of one element""",
        "`dst` and `c` are [1, 1], `a` is like `b`; ceil(log2 b.rows) + ceil(log2 b.cols) <= 24 (BAD_SHAPE); "
        f"n is in [0, {LR_MAX}] (OVERFLOW)",
    ),
    Opcode.AVG: (
        "Average over the pixels of every image, the division rounded to a power of two.",
        """\
e_v      <- a.e - round_log2(a's height * width)
v[i, o]  <- sum over the pixels p of image i of a[p, o]
"""
        + AS_FWD,
        f"{SAME}; `dst` has images of one pixel (BAD_SHAPE)",
    ),
    Opcode.AVGB: (
        "Error of an average's input: the output's error at every pixel.",
        """\
e_v      <- a.e - round_log2(dst's height * width)
v[p, o]  <- a[image of p, o]
v[p, o]  <- 0 where c[p, o] <= 0                           with MASK
"""
        + AS_FWD,
        f"{SAME}; `a` has images of one pixel, `c` is like `dst` (BAD_SHAPE)",
    ),
    Opcode.MAX: (
        "Largest of every 2 x 2 pixels.",
        """\
e_v      <- a.e
v[p, o]  <- largest of a's four pixels at twice p's coordinates
"""
        + AS_FWD,
        f"{SAME}; `a` has twice `dst`'s height and width (BAD_SHAPE)",
    ),
    Opcode.MAXB: (
        "Error of a pooling's input `b`: the output's error `a` at the first of the largest pixels.",
        """\
e_v      <- a.e
v[q, o]  <- a[p, o] where q is the first in line order of the largest of b's four pixels of p, else 0
v[q, o]  <- 0 where b[q, o] <= 0                           with MASK
"""
        + AS_FWD,
        f"{SAME}; `dst` has twice `a`'s height and width, `b` has its planes, columns, height and width (BAD_SHAPE)",
    ),
}
