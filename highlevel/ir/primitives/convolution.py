"""Placeholder while in the making."""
