"""Evaluation of a trained model: figures by mask kind and mask ratio, beside the classical methods, and their report."""
