-- Two databases, each with a role that owns it alone. Read by psql, once, when the data folder is empty.
-- The passwords come from variables of its environment, and a statement that fails is not written to the log.

\set ON_ERROR_STOP on
\getenv sweeper_password SWEEPER_DATABASE_PASSWORD
\getenv mlflow_password MLFLOW_DATABASE_PASSWORD

SET log_statement TO none;
SET log_min_error_statement TO panic;
SET log_min_duration_statement TO -1;

CREATE ROLE sweeper LOGIN PASSWORD :'sweeper_password';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';

CREATE DATABASE sweeper OWNER sweeper ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE mlflow OWNER mlflow ENCODING 'UTF8' TEMPLATE template0;

-- Neither may look into the other's.
REVOKE ALL ON DATABASE sweeper, mlflow, postgres FROM PUBLIC;
