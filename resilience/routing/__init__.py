"""Calls that somebody else can answer too: fallbacks, and pools of equals."""
