"""Chromatin profiles at full width: 919 synthetic labels of real human windows, measured."""
