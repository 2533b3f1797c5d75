"""The dashboard: its rules and figures alone, then with a real cluster, then in a real browser."""
