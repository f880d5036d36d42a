"""HTTP endpoints: message shapes, a client that counts, and a ledger that outlives a kill.

Nothing here knows what a target is: targets, and whatever else speaks to an endpoint, build on it.
"""

from redan.wire.client import Client
from redan.wire.ledger import Bill, Ledger
from redan.wire.outcome import Answer, Failure, Reason
from redan.wire.patience import Patience
from redan.wire.recognition import Recognised
from redan.wire.service import Kind, Protocol, Reading, Service

__all__ = [
    "Answer",
    "Bill",
    "Client",
    "Failure",
    "Kind",
    "Ledger",
    "Patience",
    "Protocol",
    "Reading",
    "Reason",
    "Recognised",
    "Service",
]
