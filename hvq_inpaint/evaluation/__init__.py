"""Evaluation of a trained model.

Figures by mask kind and mask ratio, beside the classical methods, and their report.
"""
