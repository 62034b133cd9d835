"""Mutation testing: mutmut changes the code, and the tests, which are collected once, are forked for each change."""
