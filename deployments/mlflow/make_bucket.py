"""Makes MLflow's bucket where it is not there yet; the store's address and keys come from the environment."""

import os

import boto3

BUCKET = "mlflow"


def main() -> None:
    """Make the bucket; a second call does nothing."""
    s3 = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    known = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    if BUCKET not in known:
        s3.create_bucket(Bucket=BUCKET)
    print(f"bucket {BUCKET} is there", flush=True)


if __name__ == "__main__":
    main()
