"""What AWS says: the only package that imports boto3."""
