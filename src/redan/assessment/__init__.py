"""From a threat-model file to a report: build the target, check the set-up, attack, measure again, judge."""

from redan.assessment.assess import assess

__all__ = ["assess"]
