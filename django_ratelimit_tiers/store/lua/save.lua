-- Store the `body` of a subject's value at `value_key`, which `expires` then.
if expires then
  call('SET', value_key, pack('<I4', expires) .. body, 'EX', expires - seconds)
else
  call('SETRANGE', value_key, FIRST - 1, body)
end
