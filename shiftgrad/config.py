"""Named machine configurations and every number derived from them."""

from __future__ import annotations

from dataclasses import dataclass

from shiftgrad.isa import DENSE_FLAGS, LEGAL_FLAGS, TERMS_END, Flag, Opcode

__all__ = ["CONFIGS", "MEMORIES", "Config", "ConfigError", "get_config"]

SIZES = (4, 8, 12, 16)
WORD_BITS = 17  # of a word address in the RTL
BASE_BITS = 20  # of a word address in the tensor table
WINDOW_BITS = 20  # of the host bytes of a memory
MEMORIES = ("act", "err", "wgt", "mom", "vec")


class ConfigError(ValueError):
    """A configuration that cannot be built, with what was wanted and what was got."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One accelerator: array size and memory depths.

    Parameters
    ----------
    name : identifier used in paths and reports
    size : T, rows and columns of the array and lanes of every memory; one of 4, 8, 12, 16
    act_words, err_words : depth of the activation and error memories, in words of T int8
    wgt_words, mom_words : depth of the weight and momentum memories, in words of T int8
    vec_words : depth of the vector memory (biases, labels), in words of T int16
    program_words : depth of the program memory, in 64-bit instructions
    tensors : entries in the tensor table
    classes : most logits a row of LOSS may have
    lut_products : the vector unit multiplies in lookup tables, where the array takes the device's multipliers
    terms_end : products of as many terms or more are an error; fewer than 2^17 on a dense machine only
    dense : matrices only, for small devices: no images, scalars or vector unit; what needs them is an error
    unsigned : results of ReLU are 0 to 255 instead of 0 to 127; the array multiplies 9 by 8 bits
    virtual : for the golden machine only: memories beyond what the RTL and its host bus can address
    """

    name: str
    size: int = 8
    act_words: int = 8192
    err_words: int = 4096
    wgt_words: int = 16384
    mom_words: int = 16384
    vec_words: int = 1024
    program_words: int = 256
    tensors: int = 64
    classes: int = 256
    lut_products: bool = False
    terms_end: int = TERMS_END
    dense: bool = False
    unsigned: bool = False
    virtual: bool = False

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(f"size must be one of {SIZES}, got {self.size!r}")
        for field, low, high in (
            *((f"{memory}_words", 4, self._most_words(memory)) for memory in MEMORIES),
            ("program_words", 4, 32768),
            ("tensors", 4, 256),
            ("classes", 2, 256),
            ("terms_end", 2 if self.dense else TERMS_END, TERMS_END),
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or not low <= value <= high:
                raise ConfigError(f"{field} must be an integer from {low} to {high}, got {value!r}")
        if self.dense and self.unsigned:
            raise ConfigError("a dense machine has no unsigned activations, got dense and unsigned")

    def _most_words(self, memory: str) -> int:
        if self.virtual:
            return 1 << BASE_BITS
        return min(1 << WORD_BITS, (1 << WINDOW_BITS) // self.pitch(memory))

    def check_buildable(self) -> None:
        """``ConfigError`` for a virtual machine."""
        if self.virtual:
            raise ConfigError(f"{self.name} runs on the golden machine only: its memories may have up to "
                              f"{1 << BASE_BITS} words, the RTL's {1 << WORD_BITS}")

    @property
    def legal_flags(self) -> dict[Opcode, Flag]:
        """The operations this machine has, and their flags."""
        return DENSE_FLAGS if self.dense else LEGAL_FLAGS

    @property
    def loads_while_busy(self) -> bool:
        """Whether this machine's ACT and VEC take writes while a program runs."""
        return not self.dense

    @property
    def window_bits(self) -> int:
        """Address bits of a window of the host bus; more for a virtual machine, which no bus has to reach."""
        return WINDOW_BITS + (BASE_BITS + 5 - WINDOW_BITS) * self.virtual

    def address(self, region: int) -> int:
        """First byte address of a window of the host bus."""
        return region << self.window_bits

    def words(self, memory: str) -> int:
        """Depth of ``memory`` in words of T lanes."""
        return int(getattr(self, f"{memory}_words"))

    @property
    def macs_per_cycle(self) -> int:
        """Peak multiply-accumulates a cycle, T * T."""
        return self.size * self.size

    def stride(self, cols: int) -> int:
        """Words one row of ``cols`` elements takes."""
        return -(-cols // self.size)

    def pitch(self, memory: str) -> int:
        """Host bytes from one memory word to the next: T lanes, rounded up to a power of two."""
        lanes = 1 << (self.size - 1).bit_length()
        return lanes * self.lane_bytes(memory)

    @staticmethod
    def lane_bytes(memory: str) -> int:
        """Bytes of one lane: 2 in the vector memory, 1 elsewhere."""
        return 2 if memory == "vec" else 1

    @property
    def bytes_total(self) -> int:
        """Bytes in the five data memories together."""
        return sum(self.words(m) * self.size * self.lane_bytes(m) for m in MEMORIES)


CONFIGS: dict[str, Config] = {
    config.name: config
    for config in (
        Config(name="sim_4x4", size=4, act_words=16384, err_words=8192,
               wgt_words=32768, mom_words=32768, vec_words=2048),
        Config(name="sim_8x8"),
        Config(name="sim_8x8_unsigned", unsigned=True),
        Config(name="sim_12x12", size=12),
        Config(name="sim_16x16", size=16),
        # the largest memories that the RTL can address, for convolutional networks
        Config(name="sim_4x4_large", size=4, act_words=131072, err_words=131072, wgt_words=131072, mom_words=131072,
               vec_words=8192, program_words=2048, tensors=256),
        Config(name="sim_8x8_large", size=8, act_words=131072, err_words=131072, wgt_words=65536, mom_words=65536,
               vec_words=4096, program_words=2048, tensors=256),
        Config(name="sim_16x16_large", size=16, act_words=65536, err_words=65536, wgt_words=32768, mom_words=32768,
               vec_words=4096, program_words=2048, tensors=256),
        # memories sized for 784-128-10 at batch 32 inside 208 block RAMs of 2 KiB
        Config(name="ulx3s_85f_8x8", size=8, act_words=4096, err_words=2048,
               wgt_words=16384, mom_words=16384, vec_words=512, tensors=128),
        Config(name="ulx3s_85f_8x8_unsigned", size=8, act_words=4096, err_words=2048,
               wgt_words=16384, mom_words=16384, vec_words=512, tensors=128, unsigned=True),
        # the same device: the array takes 144 of its 156 multipliers
        Config(name="ulx3s_85f_12x12", size=12, act_words=8192, err_words=4096, wgt_words=8192, mom_words=8192,
               vec_words=512, tensors=128, lut_products=True),
        # all 56 block RAMs, and 26 of the 28 multipliers, of the smallest ECP5
        Config(name="ulx3s_25f_4x4", size=4, act_words=2048, err_words=2048,
               wgt_words=8192, mom_words=8192, vec_words=1024),
        # four single-port memories of 32 KiB and 30 block RAMs of 512 bytes: 64-48-10 at batch 32
        Config(name="up5k_4x4", size=4, act_words=16384, err_words=512, wgt_words=8192, mom_words=8192, vec_words=128,
               program_words=128, tensors=64, classes=32, terms_end=1024, dense=True),
        # for experiments on the golden machine with deeper networks and larger batches than fit the RTL
        Config(name="golden_16x16", size=16, act_words=1 << 20, err_words=1 << 20, wgt_words=1 << 17, mom_words=1 << 17,
               vec_words=8192, program_words=4096, tensors=256, virtual=True),
        Config(name="golden_16x16_unsigned", size=16, act_words=1 << 20, err_words=1 << 20, wgt_words=1 << 17,
               mom_words=1 << 17, vec_words=8192, program_words=4096, tensors=256, unsigned=True, virtual=True),
    )
}


def get_config(name: str) -> Config:
    """Look up a named configuration; ``ConfigError`` lists the names there are."""
    try:
        return CONFIGS[name]
    except KeyError:
        raise ConfigError(f"no configuration {name!r}; there are: {', '.join(CONFIGS)}") from None
