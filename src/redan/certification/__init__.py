"""What no attack can do, proven: bounds that hold for every input of a perturbation set."""

from redan.certification.bounds import Certificate, Method, certified

__all__ = ["Certificate", "Method", "certified"]
