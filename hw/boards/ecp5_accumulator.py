"""A sum that can start anew in the ECP5's carry chain: synthesis would clear the addend in lookup tables of its own."""

from amaranth.hdl import Cat, Const, Instance, Module, Signal, Value

__all__ = ["accumulate"]

A_XOR_B_UNLESS_C = sum(((i ^ (i >> 1 & ~(i >> 2))) & 1) << i for i in range(8, 16))  # D is 1
GENERATE = 0b1010  # with C and D 0: A


def accumulate(m: Module, total: Value, term: Value, first: Value) -> Value:
    """See :data:`hw.array.ACCUMULATORS`; two bits a CCU2C: A is ``term``, B ``total``, C ``first``."""
    bits = len(total)
    assert bits % 2 == 0, bits
    term = Cat(term, term[-1].replicate(bits - len(term)))
    result, carry = Signal(bits, name="sum"), Const(0)
    for i in range(0, bits, 2):
        carry_out = Signal(name=f"carry{i}")
        m.submodules[f"sum{i}"] = Instance(
            "CCU2C",
            **{f"p_INIT{half}": Const(A_XOR_B_UNLESS_C | GENERATE, 16) for half in range(2)},
            **{f"p_INJECT1_{half}": "NO" for half in range(2)},
            **{f"i_A{half}": term[i + half] for half in range(2)},
            **{f"i_B{half}": total[i + half] for half in range(2)},
            **{f"i_C{half}": first for half in range(2)},
            **{f"i_D{half}": Const(1) for half in range(2)},
            i_CIN=carry, o_COUT=carry_out, **{f"o_S{half}": result[i + half] for half in range(2)},
        )
        carry = carry_out
    return result
