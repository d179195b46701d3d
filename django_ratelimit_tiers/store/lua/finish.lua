-- Put a subject's new value together, some of whose records changed. Gives `body`, its records, and
-- `expires`, when its key expires, nil where that stays as it is. Where one was added, what has
-- expired is left out, so that a subject costs only what it still uses.
--
-- A key is kept an eighth longer than it need be, at least 10 seconds and at most an hour: so most
-- charges find that it lasts long enough, and only write over its records.
local body, expires = head, nil
if unread <= #value then body = head .. sub(value, unread) end
if has_grown then
  local records = body
  body, expires = '', kept_until
  for at = 1, #records, RECORD_SIZE do
    local _, last_second = unpack_from('<c8I4', records, at)
    if last_second > seconds then body = body .. sub(records, at, at + RECORD_SIZE - 1) end
  end
end
if latest > kept_until then
  local longer = (latest - seconds) / 8
  if longer < 10 then longer = 10 elseif longer > 3600 then longer = 3600 end
  expires = latest + longer
  expires = expires - expires % 1
  if expires > LAST_SECOND then expires = LAST_SECOND end
end
