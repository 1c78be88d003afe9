"""The conformance kit: laws that every plug-in keeps, one sentence a law. Built-in plug-ins and those of others run the same."""

from refeed.conformance.policy import POLICY_LAWS, check_policy

__all__ = ["POLICY_LAWS", "check_policy"]
