-- Store a subject's `value` at `value_key`, one of whose counters `expires` then. Where one was
-- added, what has expired is left out, so that a subject costs only what it still uses.
local before = unpack_from('<I4', value)
if before > expires then expires = before end
local records
if has_grown then
  records = ''
  for at = FIRST, #value, RECORD_SIZE do
    local _, last_second = unpack_from('<c8I4', value, at)
    if last_second > seconds then records = records .. sub(value, at, at + RECORD_SIZE - 1) end
  end
else
  records = sub(value, FIRST)
end
call('SET', value_key, pack('<I4', expires) .. records, 'EX', expires - seconds)
