"""AWS: machines rented from EC2. Only this package imports boto3, and only inside functions."""
