"""What a call carries beside its arguments and its value: logs, traces, context variables."""
