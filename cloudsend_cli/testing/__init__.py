"""Shipped with the package: fakes with memory, contract tests for every port, and the crash world."""
