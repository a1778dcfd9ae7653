"""`python -m plugin_registry_client`: the command, where its script is not on the path."""

from plugin_registry_client.command.main import main

if __name__ == "__main__":
    main(prog_name="plugin-registry")
