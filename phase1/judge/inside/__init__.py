"""What runs inside the sandbox, and only there. These modules import nothing of ours."""
