-- Look for a counter whose record is not the next one, at `unread`. Gives `from`, where the record
-- stands if there is one.
from = find(value, id, FIRST, true)
while from and (from - FIRST) % RECORD_SIZE ~= 0 do from = find(value, id, from + 1, true) end
if from and from < unread then
  -- It was gone past, or written by an earlier charge: go on from the beginning.
  value, head, unread = EMPTY .. head .. sub(value, unread), '', FIRST
end
