"""Adapters to real services. Each kind of service is a package of its own; importing this one loads none of them."""
