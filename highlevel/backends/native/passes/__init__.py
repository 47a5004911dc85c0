"""Passes over graphs: tables of rules, and the driver that applies them."""
