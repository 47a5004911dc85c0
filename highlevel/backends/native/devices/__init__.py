"""Devices: where compiled code runs."""
