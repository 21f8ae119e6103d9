"""What a protocol author imports: protocols, steps, the lab, and plan stubs."""

from ppu.plans.lab import Lab
from ppu.plans.messages import MsgGenerator, bps
from ppu.plans.protocol import ProtocolResult, RegisteredProtocol, protocol
from ppu.plans.steps import StepKind, compute, step

__all__ = [
    "Lab",
    "MsgGenerator",
    "ProtocolResult",
    "RegisteredProtocol",
    "StepKind",
    "bps",
    "compute",
    "protocol",
    "step",
]
