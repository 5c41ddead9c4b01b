"""Cycles and resources of a plan before anything is synthesised."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from shiftgrad.config import MEMORIES, Config
from shiftgrad.cycles import Cost, cost_of
from shiftgrad.plan import Plan

__all__ = ["Cost", "Estimate", "Resources", "estimate", "resources"]

# --- resource model: the routed boards, 8 x 8 and 12 x 12, with their link; a PE and a lane by tables of areas ---
BLOCK_BYTES = 2048
LUT = (10092, 2069, 67)  # machine, each lane, each PE
FF = (7400, 2255, 98)
PRODUCT = (356, 66)  # more of each a lane, with lut_products
OTHER_DSP = 6  # loss unit, operand checks and loops; the vector unit has one a lane, or none with lut_products


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a configuration takes of a part: multipliers, 2 KiB block RAMs, LUTs and flip-flops (linear model)."""

    dsp: int
    block_ram: dict[str, int]
    lut: int
    ff: int

    @property
    def blocks(self) -> int:
        """Block RAMs of 2 KiB in all."""
        return sum(self.block_ram.values())

    def to_json(self) -> dict[str, Any]:
        """The same in plain types."""
        return {"dsp": self.dsp, "block_ram": self.block_ram, "blocks": self.blocks, "lut": self.lut, "ff": self.ff}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Expected cycles of both programs, in steady state or for the first step, and the machine's resources."""

    plan: Plan
    costs: tuple[Cost, ...]
    resources: Resources

    def cycles(self, program: str = "train") -> int:
        """Cycles of one run of ``program``."""
        return sum(cost.cycles for cost in self.costs if cost.instruction.program == program)

    def utilisation(self, program: str = "train") -> float:
        """Useful multiply-accumulates over the array's peak, 0 to 1."""
        macs = sum(cost.macs for cost in self.costs if cost.instruction.program == program)
        return macs / (self.cycles(program) * self.plan.config.macs_per_cycle)

    def phases(self, program: str = "train") -> dict[str, int]:
        """Cycles by phase, in program order."""
        total: dict[str, int] = defaultdict(int)
        for cost in self.costs:
            if cost.instruction.program == program:
                total[cost.instruction.phase] += cost.cycles
        return dict(total)

    def samples_per_second(self, clock_mhz: float, program: str = "train") -> float:
        """Samples a second at ``clock_mhz``, the host's transfers not counted."""
        return clock_mhz * 1e6 * self.plan.batch / self.cycles(program)

    def table(self) -> str:
        """Instructions, phases and resources as text tables."""
        plan, peak = self.plan, self.plan.config.macs_per_cycle
        head = f"{'pc':>3}  {'phase':10}{'layer':12}{'m x n x k':>20}{'tiles':>7}{'passes':>7}{'cycles':>10}{'busy':>8}"
        lines = [f"{plan.network.name} on {plan.config.name}, batch {plan.batch}, scale {plan.scale}", "", head]
        for c in self.costs:
            i = c.instruction
            shape = " x ".join(map(str, i.shape))
            lines.append(f"{i.pc:3}  {i.phase:10}{i.layer:12}{shape:>20}{c.tiles:7}{c.passes:7}{c.cycles:10}"
                         f"{100 * c.macs / (c.cycles * peak):7.1f}%")
        for name in plan.entries:
            parts = ", ".join(f"{phase} {cycles}" for phase, cycles in self.phases(name).items())
            lines += ["", f"{name}: {self.cycles(name)} cycles, {100 * self.utilisation(name):.1f} % of peak ({parts})"]
        r = self.resources
        blocks = ", ".join(f"{name} {count}" for name, count in r.block_ram.items())
        lines += ["", f"resources: {r.dsp} multipliers, {r.blocks} block RAMs ({blocks}), about {r.lut} LUTs, "
                      f"{r.ff} flip-flops"]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The estimate in plain types, ready for ``json.dumps``."""
        return {
            "network": self.plan.network.name, "config": self.plan.config.name, "batch": self.plan.batch,
            "scale": self.plan.scale,
            "programs": {
                name: {"cycles": self.cycles(name), "utilisation": self.utilisation(name), "phases": self.phases(name)}
                for name in self.plan.entries
            },
            "instructions": [
                {"pc": c.instruction.pc, "program": c.instruction.program, "layer": c.instruction.layer,
                 "phase": c.instruction.phase, "tiles": c.tiles, "tile_cycles": c.tile, "passes": c.passes,
                 "cycles": c.cycles, "macs": c.macs}
                for c in self.costs
            ],
            "resources": self.resources.to_json(),
        }


def resources(config: Config) -> Resources:
    """Multipliers, memories by bank, and LUTs and flip-flops from a model linear in lanes and PEs."""
    size = config.size
    blocks = {name: size * -(-config.words(name) * config.lane_bytes(name) // BLOCK_BYTES) for name in MEMORIES}
    blocks["program"] = max(2, -(-config.program_words * 8 // BLOCK_BYTES))  # 64 bits wide: at least two blocks of 36
    blocks["table"] = 6 + (config.tensors > 64)  # one for each word of an entry; the narrowest may fit LUTs
    blocks["loss and link"] = 4
    lut, ff = (fixed + (lane + product * config.lut_products) * size + pe * size**2
               for (fixed, lane, pe), product in zip((LUT, FF), PRODUCT, strict=True))
    dsp = size * size + size * (not config.lut_products) + OTHER_DSP
    return Resources(dsp=dsp, block_ram=blocks, lut=lut, ff=ff)


def estimate(plan: Plan, *, first_step: bool = False) -> Estimate:
    """Expected cycles of every instruction of ``plan``.

    Parameters
    ----------
    first_step : no exponent history yet, so a delayed scale takes two passes as well
    """
    costs = tuple(cost_of(instruction, plan, first=first_step) for instruction in plan.instructions)
    return Estimate(plan=plan, costs=costs, resources=resources(plan.config))
