"""Fetching from a stranger: names, addresses, connections, answers, redirects and what breaks off."""
