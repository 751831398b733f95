-- Who opens the store: founds it, if it is empty.
-- KEYS: meta. ARGV: schema, a new id of the store, fingerprint of the key.
-- Returns the schema, the id, the fingerprint, and when it was founded, in ms.
if redis.call('EXISTS', KEYS[1]) == 0 then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('HSET', KEYS[1], 'schema', ARGV[1], 'store', ARGV[2], 'key', ARGV[3],
        'founded', string.format('%.0f', now))
end
return redis.call('HMGET', KEYS[1], 'schema', 'store', 'key', 'founded')
