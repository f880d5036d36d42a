"""Who is to blame where nothing is answered: the row, or how and where the endpoint is asked."""

from __future__ import annotations

from collections.abc import Sequence

from redan.errors import TargetError
from redan.wire.outcome import Answer, Failure, Reason
from redan.wire.service import Service


def reason_of(status: int) -> Reason:
    """What an HTTP status other than 200, 429 and 503 says."""
    match status:
        case 401 | 403:
            return Reason.DENIED
        case 404 | 405:
            return Reason.MISSING
        case _ if 300 <= status < 400:
            return Reason.MOVED
        case _ if 400 <= status < 500:
            return Reason.CLIENT
        case _ if status >= 500:
            return Reason.SERVER
        case _:
            return Reason.MISFIT


def refused(service: Service, failure: Failure) -> TargetError:
    """What to say where the very first requests fail for a reason that is no row's: cause and remedy."""
    where = service.shown
    match failure.reason:
        case Reason.DENIED:
            env = service.auth_env
            remedy = (
                f"check the secret in the environment variable {env}"
                if env is not None
                else "name the environment variable that holds the secret (auth: {env: …})"
            )
            return TargetError(f"the endpoint {where} let nobody in ({failure.status}); {remedy}")
        case Reason.MOVED:
            return TargetError(f"the endpoint {where} points elsewhere ({failure.status}); give its final url")
        case Reason.MISSING:
            return TargetError(f"nothing answers at {where} ({failure.status}); check the url and the model's name")
        case Reason.TLS:
            return TargetError(
                f"the endpoint {where} has no certificate that can be trusted ({failure.why}); name its authority by "
                "the environment variable SSL_CERT_FILE"
            )
        case _:
            return TargetError(f"the endpoint {where} cannot be reached ({failure.why}); is it running?")


def gone(service: Service, failure: Failure, questions: int) -> TargetError:
    """What to say where an endpoint that did answer answers nobody any more."""
    return TargetError(
        f"the endpoint {service.shown} answered none of the last {questions} questions ({failure}); put it right, and "
        "go on: what was finished is kept (redan assess --resume)"
    )


def refuse_babel(found: Sequence[Answer | Failure]) -> None:
    """Raise TargetError where answers came and none of them is understood."""
    failures = [one for one in found if isinstance(one, Failure) and one.reason is Reason.MISFIT]
    if failures and len(failures) == len(found):
        raise TargetError(
            f"the endpoint's answers are not understood ({failures[0].why}); check protocol, response and output"
        )
