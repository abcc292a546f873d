"""`meshctl`: one file per verb."""
