"""Projects of tenants: invitations, roles, service keys and step-up, on SQLite.

Copy the folder, and serve it:

    fastapi-guard jwk generate saas-keys.json
    export SAAS_SITE=https://saas.example FASTAPI_GUARD_STORE_URL=sqlite+aiosqlite:///saas.db
    export FASTAPI_GUARD_MAIL_KEY='{"1": "..."}'  # python -c 'import secrets; print(secrets.token_urlsafe(32))'
    uvicorn saas.main:app

The operator invites the first owner of each tenant, and owners invite the others:

    fastapi-guard users invite ada@acme.example --site $SAAS_SITE --tenant acme --role owner
"""
