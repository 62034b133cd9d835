"""The bodies of requests and responses about API keys."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from fastapi_guard.api_key.key import MAX_TEXT_LENGTH, StoredKey
from fastapi_guard.api_key.limits import LimitState

_MAX_OVERLAP_SECONDS = 30 * 86_400
_MAX_PERIOD_SECONDS = 10 * 366 * 86_400

KeyScope = Annotated[
    str, StringConstraints(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$", max_length=MAX_TEXT_LENGTH), Field(title="Scope")
]
Name = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$", max_length=MAX_TEXT_LENGTH)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_LENGTH)]


class _Body(BaseModel):
    # Owner and tenant are the caller's: a body that names others is rejected, not ignored.
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class KeyRequest(_Body):
    """A key to create. Its owner and its tenant come from the credential of the caller."""

    name: Name = ""
    scopes: list[KeyScope] = Field(default=[], max_length=100)
    is_admin: bool = False
    expires_at: AwareDatetime | None = Field(
        default=None, description="By default when the caller's credential expires."
    )
    environment: Text | None = Field(default=None, description="Such as live or test, where keys have environments.")
    allowed_networks: list[Text] = Field(
        default=[], max_length=100, description="The networks that the key is accepted from; none: from anywhere."
    )
    allowed_origins: list[Text] = Field(
        default=[], max_length=100, description="The origins whose pages may send the key; none: no such rule."
    )
    rate: Text | None = Field(default=None, description="How many requests in which time, such as 100/minute.")
    quota: int | None = Field(default=None, ge=1, description="How many requests in all, or in each period.")
    quota_period_seconds: int | None = Field(
        default=None, ge=1, le=_MAX_PERIOD_SECONDS, description="The time after which the quota is full again."
    )

    def fields(self) -> dict[str, Any]:
        """Return the fields that were sent, as ``KeyFields`` names them."""
        fields = self.model_dump(exclude_unset=True)
        if "quota_period_seconds" in fields:
            seconds = fields.pop("quota_period_seconds")
            fields["quota_period"] = None if seconds is None else timedelta(seconds=seconds)
        return fields


class RotationRequest(_Body):
    """How a key is replaced."""

    overlap_seconds: int = Field(default=0, ge=0, le=_MAX_OVERLAP_SECONDS, description="How long both keys are valid.")
    expires_at: AwareDatetime | None = Field(default=None, description="By default the lifetime of the old key again.")


class KeyInfo(BaseModel):
    """A key, without its text."""

    key_id: str
    name: str
    status: Literal["active", "paused", "expired", "revoked"]
    environment: str | None
    subject_type: str
    issuer: str | None
    user_id: str
    tenant_id: str | None
    is_admin: bool
    scopes: list[str]
    allowed_networks: list[str]
    allowed_origins: list[str]
    rate: str | None
    quota: int | None
    quota_seconds: int | None
    created_at: datetime
    expires_at: datetime | None
    paused_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    last_address: str | None
    replaced_by: str | None

    @classmethod
    def of(cls, key: StoredKey, now: datetime) -> Self:
        """Return what is shown of a key at the moment ``now``."""
        fields = {name: getattr(key, name) for name in cls.model_fields if name != "status"}
        return cls(status=key.status(now), **fields)


class CreatedKey(BaseModel):
    """A new key. Its text is in this response and nowhere else."""

    key_id: str
    key: str = Field(repr=False)
    expires_at: datetime | None


class LimitInfo(BaseModel):
    """A limit of a key as it is now."""

    name: str = Field(description="rate, rate-2, ... or quota.")
    amount: int = Field(description="How many requests it allows.")
    seconds: int | None = Field(description="In which time; null for a quota that is never refilled.")
    remaining: int = Field(description="How many it allows now.")
    reset_seconds: float | None = Field(description="The time after which it allows more; null for never.")

    @classmethod
    def listed(cls, states: Sequence[LimitState]) -> "list[LimitInfo]":
        """Return the limits of a key."""
        return [cls(**state._asdict()) for state in states]
