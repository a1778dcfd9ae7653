-- Run once, as the superuser, when compose.yaml's PostgreSQL makes its database. The superuser is for whoever is in its
-- container: over the network nobody comes as it.
--
-- registry        owns the database and what is in it; `plugin-registry migrate` comes as it
-- registry_serve  reads and writes what `migrate` grants it; api and worker come as it
\set owner_password `cat /run/secrets/owner_password`
\set serve_password `cat /run/secrets/database_password`
CREATE ROLE registry LOGIN PASSWORD :'owner_password';
CREATE ROLE registry_serve LOGIN PASSWORD :'serve_password';
ALTER DATABASE registry OWNER TO registry;
REVOKE ALL ON DATABASE registry FROM PUBLIC;
GRANT CONNECT ON DATABASE registry TO registry_serve;
ALTER SCHEMA public OWNER TO registry;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO registry_serve;
ALTER ROLE CURRENT_USER PASSWORD NULL;
