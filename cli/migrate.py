"""`migrate`: brings a store up to this version, explicitly, once, before the services start."""

from contextlib import closing

import click
from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.command.terminal import say
from plugin_registry_client.errors import USAGE

from cli.state import StateFolder
from shared.errors import StoreUnavailable
from shared.settings import BadSettings, read_settings
from shared.store import schema
from shared.store.database import SchemaMismatch, open_database


@click.command()
@click.option(
    "--grant-to",
    "roles",
    multiple=True,
    metavar="ROLE",
    help="Let ROLE of PostgreSQL serve, and no more; repeatable.",
)
def migrate(roles: tuple[str, ...]) -> None:
    """Bring the store at REGISTRY_DATABASE_URL up to this version."""
    try:
        settings = read_settings()
        if settings.embedded_store:
            StateFolder(settings.state_dir).make()
        with closing(open_database(settings.database_url)) as database:
            schema.migrate(database)
            for role in roles:
                schema.grant(database, role)
            creators = [role for role in roles if schema.may_create(database, role)]
    except BadSettings as error:
        raise Refusal(f"{error}.", USAGE) from error
    except (SchemaMismatch, StoreUnavailable) as error:
        raise Refusal(str(error)) from error
    say("The store is up to date.")
    for role in creators:
        say(f"{role} may make tables in the store's schema: REVOKE CREATE ON SCHEMA ... FROM PUBLIC.", err=True)
