"""Projects of tenants: members with a role in each, invitations, service keys and step-up, on SQLite; see README.md."""
