"""Accounts: registration, changes of passwords and addresses, invitations."""

from fastapi_guard.login.accounts.accounts import Accounts
from fastapi_guard.login.accounts.invitations import Invited
from fastapi_guard.login.accounts.mailing import AccountPages, MailedProof
from fastapi_guard.login.accounts.new_credentials import NewAccount, Rejected

__all__ = ["AccountPages", "Accounts", "Invited", "MailedProof", "NewAccount", "Rejected"]
