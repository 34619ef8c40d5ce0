-- Makes the databases of Prefect and MLflow, each owned by a role of its own, whose password is in psql's environment.
-- The image of PostgreSQL runs this once, on an empty volume; elsewhere: psql --file deployments/postgres/databases.sql
\set ON_ERROR_STOP on
\getenv prefect_password PREFECT_DB_PASSWORD
\getenv mlflow_password MLFLOW_DB_PASSWORD
SET log_min_error_statement = panic; -- a statement that fails must not bring a password into the log
CREATE ROLE prefect LOGIN PASSWORD :'prefect_password';
CREATE DATABASE prefect OWNER prefect;
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_auth OWNER mlflow;
