-- Which epoch it is; begins one if another process runs this. given: epoch. Returns {epoch, now (ms), seq}.
read_ledger({})
if epoch ~= '' or given[1] ~= '' then
  is_other_epoch()
end
return {epoch, now_ms, seq}
