"""The secret of a request: from the environment, into a header, and nowhere else."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from redan.errors import TargetError
from redan.wire.service import Service


@dataclass(frozen=True, slots=True)
class Secret:
    """A header and its value, which is never shown."""

    header: str
    value: str = field(repr=False)

    def hidden(self, text: str) -> str:
        """A text of others without the secret, should it hold it."""
        for part in (self.value, self.value.rpartition(" ")[2]):
            text = text.replace(part, "[secret]")
        return text


def secret_of(service: Service) -> Secret | None:
    """The service's secret. Raises TargetError where the environment does not have it."""
    if service.auth_env is None:
        return None
    value = os.environ.get(service.auth_env, "")
    if not value or re.search(r"[^\x21-\x7e ]", value):
        wrong = "holds characters that no header may have" if value else "is not set"
        raise TargetError(
            f"the environment variable {service.auth_env}, which should hold the endpoint's secret, {wrong}; set it "
            "before (for a token of the usual kind to: Bearer …)"
        )
    return Secret(service.auth_header, value)
