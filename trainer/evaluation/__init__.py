"""Fused pictures judged: metrics of methods on sets of pairs, tables, labels for detectors."""
