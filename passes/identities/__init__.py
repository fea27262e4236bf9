"""Identities of single nodes, by op: the rules of `canonicalize`.

A rule gets a node whose operands are canonical, and returns the value that stands for it, or
None. It may look at what made the operands, never at who else reads them, so one walk suffices.
"""
