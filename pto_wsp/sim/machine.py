"""The simulated device: how many cores it has, how fast they are clocked and fed, what their memories hold.

Every number carries its source. The cycle rules of this package count one element per cycle and do not depend
on these numbers; they turn cycles into device time and say what fits on chip.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["A2A3", "MACHINES", "Machine"]

KiB = 1024


@dataclass(frozen=True)
class Machine:
    """One die. Sizes in bytes, per core unless said otherwise."""

    name: str
    clock_hz: float
    cube_cores: int
    vector_cores: int
    control_cpus: int
    """AICPUs that can dispatch tasks."""
    ub: int
    """Unified buffer of a vector core."""
    l1: int
    l0a: int
    l0b: int
    l0c: int
    l2: int
    """Shared by all cores of the die."""
    gen_cycles: int = 0
    """Core cycles that the orchestrator needs for each task it generates."""

    def microseconds(self, cycles: int) -> float:
        """Device time of so many core cycles."""
        return cycles / self.clock_hz * 1e6


A2A3 = Machine(
    name="Ascend A2/A3",
    clock_hz=1.85e9,  # 910B1: PYPTO platform_config/A2A3.ini
    cube_cores=24,  # 25 clusters on silicon, one fused off: the same file
    vector_cores=48,
    control_cpus=6,  # 8 positions, 1 for its OS, 1 fused off: simpler, src/a2a3/docs/hardware.md
    ub=192 * KiB,  # asc-devkit, NPU architecture version 2201, and the .ini above; so are L1 to L0C
    l1=512 * KiB,
    l0a=64 * KiB,
    l0b=64 * KiB,
    l0c=128 * KiB,
    l2=192 * 1024 * KiB,
    gen_cycles=1610,  # 0.87 us: simpler, device_log_profiling.md, 16,704 tasks submitted in 14.6 ms on A3
)

MACHINES = {"a2a3": A2A3}
