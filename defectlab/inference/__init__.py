"""Scoring of new images with a trained run: Detector, prediction files, review, nearest patches."""
