"""What may be sent now, and why not more: schedules, rates, quotas, conditions, commands."""
