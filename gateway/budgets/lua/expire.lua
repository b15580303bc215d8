-- End holds whose gateway is dead. Returns how many, at most 100 in one call.
return expire_leases()
