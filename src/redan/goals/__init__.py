"""What the attacker wants of each answer. Tasks differ by goal, not by wrapper classes.

Losses and attacks compare scores of outcomes, of which the highest is what the model says. Classes are outcomes by
themselves. Where labels or values are answered, one outcome is "right", with score 0, and each other is one way to be
wrong, with how far the answer is over its line: the margin is above 0 exactly when the goal is reached, and every
attack on classes works on labels and values too.
"""

from redan.goals.classes import LeastLikely, Targeted, Untargeted, attainable
from redan.goals.outcomes import Deviate, FlipLabels
from redan.goals.task import Aim, Task, Wrong

__all__ = ["Aim", "Deviate", "FlipLabels", "LeastLikely", "Targeted", "Task", "Untargeted", "Wrong", "attainable"]
