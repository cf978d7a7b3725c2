"""How far one store goes: simulated workers on the real ledger and Optuna's real storage."""
