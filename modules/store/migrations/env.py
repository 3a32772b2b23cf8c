"""Run by Alembic: migrates the connection that `migrate.py` hands over, in the transaction that it has begun."""

from alembic import context

from modules.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True,
                  render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
