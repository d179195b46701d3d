-- Write a counter that was changed into its subject's value. Put in after settle.lua. Gives its
-- `record`, which lasts until it can weigh nothing any more.
local lasts = window
if algorithm == SLIDING then lasts = 2 * window
elseif algorithm == BUCKET then lasts = window + (current + 1) * window / limit end
local expires = seconds + lasts / 1000000 + 2  -- whole seconds once it is packed
if expires < seconds + 60 then expires = seconds + 60 end
if expires > LAST_SECOND then expires = LAST_SECOND end
if expires > latest then latest = expires end
record = pack(RECORD, id, expires, time, current, previous)
if not from then
  value, head, unread = EMPTY .. head .. sub(value, unread) .. record, '', FIRST
  has_grown = true
else
  if from > unread then head = head .. sub(value, unread, from - 1) .. record
  elseif unread == FIRST then head = record
  else head = head .. record end
  unread = from + RECORD_SIZE
end
